// SPDX-License-Identifier: Apache-2.0

package getty

import "syscall"

const dontWait = syscall.MSG_NONBLOCK
