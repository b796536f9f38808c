// SPDX-License-Identifier: Apache-2.0

package netx

import "golang.org/x/sys/unix"

func unshareNet() error { return unix.Unshare(unix.CLONE_NEWNET) }
