// SPDX-License-Identifier: Apache-2.0

package codec_test

import (
	"encoding/binary"
	"fmt"

	"github.com/gostkit/kit/getty/codec"
)

// A header of a type byte and a 2-byte little-endian length that counts the whole package.
func ExampleLengthField() {
	c := &codec.LengthField{Offset: 1, Width: 2, Order: binary.LittleEndian, Adjust: -3, MaxLen: 1000}
	wire, _ := c.AppendPkg(nil, nil, "Qselect")
	fmt.Printf("%q\n", wire)

	pkg, n, _ := c.Read(nil, wire)
	fmt.Println(pkg, n)
	pkg.(*codec.Frame).Release() // the engine does this after OnMessage
	// Output:
	// "Q\t\x00select"
	// Qselect 9
}

func ExampleLine() {
	c := &codec.Line{CRLF: true}
	wire, _ := c.AppendPkg(nil, nil, "hello")
	fmt.Printf("%q\n", wire)

	pkg, n, _ := c.Read(nil, []byte("one\r\ntwo\r\n"))
	fmt.Println(pkg, n)
	pkg.(*codec.Frame).Release()
	// Output:
	// "hello\r\n"
	// one 5
}
