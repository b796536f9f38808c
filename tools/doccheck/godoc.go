// SPDX-License-Identifier: Apache-2.0

package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
)

// godoc reports the exported names of one package that have no doc comment:
// declarations, methods, interface methods and struct fields. A comment above a
// const, var or type group counts for its members, a trailing comment for a
// field or a constant.
func (c *checker) godoc(dir string, files []string) {
	fset := token.NewFileSet()
	documented, name := false, ""
	for _, file := range files {
		f, err := parser.ParseFile(fset, filepath.Join(c.root, filepath.FromSlash(file)), nil, parser.ParseComments)
		if err != nil {
			c.addf("%s: %v", file, err)
			continue
		}
		if f.Name.Name == "main" {
			return
		}
		name = f.Name.Name
		documented = documented || f.Doc != nil
		for _, decl := range f.Decls {
			switch d := decl.(type) {
			case *ast.FuncDecl:
				if d.Name.IsExported() && (d.Recv == nil || ast.IsExported(receiver(d))) {
					c.named(fset, file, d.Name, d.Doc)
				}
			case *ast.GenDecl:
				for _, spec := range d.Specs {
					c.spec(fset, file, spec, d.Doc)
				}
			}
		}
	}
	if !documented {
		c.addf("%s: package %s has no package comment", dir, name)
	}
}

func (c *checker) spec(fset *token.FileSet, file string, spec ast.Spec, group *ast.CommentGroup) {
	switch s := spec.(type) {
	case *ast.ValueSpec:
		for _, id := range s.Names {
			if id.IsExported() {
				c.named(fset, file, id, s.Doc, s.Comment, group)
			}
		}
	case *ast.TypeSpec:
		if !s.Name.IsExported() {
			return
		}
		c.named(fset, file, s.Name, s.Doc, s.Comment, group)
		switch t := s.Type.(type) {
		case *ast.StructType:
			c.fields(fset, file, t.Fields)
		case *ast.InterfaceType:
			c.fields(fset, file, t.Methods)
		}
	}
}

func (c *checker) fields(fset *token.FileSet, file string, list *ast.FieldList) {
	for _, field := range list.List {
		for _, id := range field.Names { // embedded ones carry the doc of their type
			if id.IsExported() {
				c.named(fset, file, id, field.Doc, field.Comment)
			}
		}
	}
}

// named counts an exported name and reports it unless one of the comments is there.
func (c *checker) named(fset *token.FileSet, file string, id *ast.Ident, comments ...*ast.CommentGroup) {
	c.names++
	for _, group := range comments {
		if group != nil && group.Text() != "" {
			return
		}
	}
	c.addf("%s:%d: %s has no doc comment", file, fset.Position(id.Pos()).Line, id.Name)
}

// receiver returns the name of the type that d is a method of.
func receiver(d *ast.FuncDecl) string {
	t := d.Recv.List[0].Type
	for {
		switch x := t.(type) {
		case *ast.StarExpr:
			t = x.X
		case *ast.IndexExpr:
			t = x.X
		case *ast.IndexListExpr:
			t = x.X
		case *ast.Ident:
			return x.Name
		default:
			return ""
		}
	}
}
