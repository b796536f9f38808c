// SPDX-License-Identifier: Apache-2.0

package getty

import (
	"fmt"

	"github.com/gostkit/kit/getty/internal/chunk"
	"github.com/gostkit/kit/getty/internal/deflate"
	"github.com/gostkit/kit/getty/internal/wire"
)

// A CompressType says how a byte stream is compressed. The levels 2 to 8 between [CompressBestSpeed]
// and [CompressBestCompression] have no names.
//
// What leaves together is compressed together, up to 64 KiB at a time, and each such chunk by
// itself: an idle session holds neither compressor nor window, and one package of a few bytes is
// sent as it is. The form on the wire is the framing format of Snappy; with DEFLATE (RFC 1951) its
// identifier is another one.
type CompressType int

// The types that have names; those of DEFLATE are its levels.
const (
	CompressNone            CompressType = 0
	CompressZip             CompressType = deflate.Zip     // DEFLATE, as most programs use it
	CompressHuffman         CompressType = deflate.Huffman // DEFLATE without a search for repetitions
	CompressBestSpeed       CompressType = deflate.Fastest
	CompressBestCompression CompressType = deflate.Best
	CompressSnappy          CompressType = CompressType(chunk.Snappy)
)

// ErrCompression is the cause of a session whose peer compresses in another way or not at all, or
// sent bytes that are no compressed stream.
var ErrCompression = chunk.ErrCorrupt

func (c CompressType) check() error {
	if c < CompressHuffman || c > CompressSnappy {
		return fmt.Errorf("getty: Compress: unknown type %d", int(c))
	}
	return nil
}

// link returns the link of a stream on l.
func (c CompressType) link(l wire.Link) wire.Link {
	if c == CompressNone {
		return l
	}
	return wire.Compress(l, chunk.Code(c))
}
