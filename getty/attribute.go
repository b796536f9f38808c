// SPDX-License-Identifier: Apache-2.0

package getty

import "sync"

// attributes is the store of a session behind SetAttribute. The map is made with the first value.
type attributes struct {
	mu sync.Mutex  // and no RWMutex, which takes three times the memory in every session
	m  map[any]any // guarded by mu
}

func (a *attributes) GetAttribute(key any) any {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.m[key]
}

func (a *attributes) SetAttribute(key, value any) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.m == nil {
		a.m = make(map[any]any)
	}
	a.m[key] = value
}

func (a *attributes) RemoveAttribute(key any) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.m, key)
}

// A Key is the typed name of a session attribute. Two keys are never the same, even if their names
// are, so packages cannot disturb each other's attributes. Make one with [NewKey] and keep it in a
// package variable.
type Key[T any] struct{ name string }

// NewKey returns a new key; name serves only its String method.
func NewKey[T any](name string) *Key[T] { return &Key[T]{name} }

// Get returns the session's value for k, and whether there is one.
func (k *Key[T]) Get(s Session) (T, bool) {
	v, ok := s.GetAttribute(k).(T)
	return v, ok
}

// Set stores the session's value for k.
func (k *Key[T]) Set(s Session, v T) { s.SetAttribute(k, v) }

// Remove deletes the session's value for k.
func (k *Key[T]) Remove(s Session) { s.RemoveAttribute(k) }

// String returns the name.
func (k *Key[T]) String() string { return k.name }
