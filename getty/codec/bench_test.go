// SPDX-License-Identifier: Apache-2.0

package codec_test

import (
	"encoding/binary"
	"testing"

	"github.com/gostkit/kit/getty/codec"
)

// One op is a frame of 64 bytes: append encodes it into memory with room, read decodes and releases it. The
// plain layout has a way of its own, little has not.
func BenchmarkLengthField(b *testing.B) {
	for _, c := range []struct {
		layout string
		codec  codec.LengthField
	}{{"plain", codec.LengthField{}}, {"little", codec.LengthField{Order: binary.LittleEndian}}} {
		payload := make([]byte, 64)
		wire, err := c.codec.AppendPkg(nil, nil, payload)
		if err != nil {
			b.Fatal(err)
		}
		b.Run("layout="+c.layout+"/append", func(b *testing.B) {
			b.ReportAllocs()
			var pkg any = payload
			dst := make([]byte, 0, 128)
			for b.Loop() {
				if _, err := c.codec.AppendPkg(dst, nil, pkg); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run("layout="+c.layout+"/read", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				pkg, _, err := c.codec.Read(nil, wire)
				if err != nil {
					b.Fatal(err)
				}
				pkg.(*codec.Frame).Release()
			}
		})
	}
}
