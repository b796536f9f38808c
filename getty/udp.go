// SPDX-License-Identifier: Apache-2.0

package getty

// UDPClientOptions are the part of [ClientOptions] that only UDP clients use.
type UDPClientOptions struct{}
