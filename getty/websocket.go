// SPDX-License-Identifier: Apache-2.0

package getty

// WebSocketServerOptions are the part of [ServerOptions] that only WebSocket servers use.
type WebSocketServerOptions struct{}

// WebSocketClientOptions are the part of [ClientOptions] that only WebSocket clients use.
type WebSocketClientOptions struct{}
