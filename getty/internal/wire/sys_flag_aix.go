// SPDX-License-Identifier: Apache-2.0

package wire

import "syscall"

const dontWait = syscall.MSG_NONBLOCK
