// SPDX-License-Identifier: Apache-2.0

package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"slices"
)

// godoc reports the exported names of one package that have no doc comment:
// declarations, methods, interface methods and struct fields. A comment above a
// group counts for its members, a trailing comment for its line, and both for the
// lines that follow without a gap. Where a type comments none of its fields or
// methods, its own comment explains them.
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
				if d.Recv == nil || ast.IsExported(receiver(d)) {
					c.named(fset, file, d.Name, false, d.Doc)
				}
			case *ast.GenDecl:
				var above run
				for _, spec := range d.Specs {
					c.spec(fset, file, spec, d.Doc, &above)
				}
			}
		}
	}
	if !documented {
		c.addf("%s: package %s has no package comment", dir, name)
	}
}

// A run is a sequence of lines that share the comment of the first.
type run struct {
	line      int // the last line seen
	commented bool
}

// extend takes the member at node into account and reports whether a comment
// covers it: its own or that of the lines directly above.
func (r *run) extend(fset *token.FileSet, node ast.Node, own ...*ast.CommentGroup) bool {
	commented := r.commented && fset.Position(node.Pos()).Line == r.line+1
	for _, group := range own {
		commented = commented || group != nil && group.Text() != ""
	}
	*r = run{fset.Position(node.End()).Line, commented}
	return commented
}

func (c *checker) spec(fset *token.FileSet, file string, spec ast.Spec, group *ast.CommentGroup, above *run) {
	switch s := spec.(type) {
	case *ast.ValueSpec:
		covered := above.extend(fset, s, s.Doc, s.Comment)
		for _, id := range s.Names {
			c.named(fset, file, id, covered, group)
		}
	case *ast.TypeSpec:
		if !s.Name.IsExported() {
			return
		}
		c.named(fset, file, s.Name, false, s.Doc, s.Comment, group)
		switch t := s.Type.(type) {
		case *ast.StructType:
			c.members(fset, file, t.Fields)
		case *ast.InterfaceType:
			c.members(fset, file, t.Methods)
		}
	}
}

func (c *checker) members(fset *token.FileSet, file string, list *ast.FieldList) {
	commented := func(f *ast.Field) bool { return f.Doc != nil || f.Comment != nil }
	if !slices.ContainsFunc(list.List, commented) {
		return
	}
	var above run
	for _, field := range list.List {
		covered := above.extend(fset, field, field.Doc, field.Comment)
		for _, id := range field.Names { // embedded ones carry the doc of their type
			c.named(fset, file, id, covered)
		}
	}
}

// named counts an exported name and reports it unless it is covered or one of
// the comments is there.
func (c *checker) named(fset *token.FileSet, file string, id *ast.Ident, covered bool, comments ...*ast.CommentGroup) {
	if !id.IsExported() {
		return
	}
	c.names++
	for _, group := range comments {
		covered = covered || group != nil && group.Text() != ""
	}
	if !covered {
		c.addf("%s:%d: %s has no doc comment", file, fset.Position(id.Pos()).Line, id.Name)
	}
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
