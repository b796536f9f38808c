// SPDX-License-Identifier: Apache-2.0

package timerwheel

// list is a queue of timers, linked through the timers themselves.
type list struct{ head, tail *Timer }

func (l *list) push(t *Timer) {
	t.prev = l.tail
	if l.tail != nil {
		l.tail.next = t
	} else {
		l.head = t
	}
	l.tail = t
}

// remove takes t out and leaves no pointer in it, so that neither its old neighbours nor t
// itself are kept alive by the other.
func (l *list) remove(t *Timer) {
	if t.prev != nil {
		t.prev.next = t.next
	} else {
		l.head = t.next
	}
	if t.next != nil {
		t.next.prev = t.prev
	} else {
		l.tail = t.prev
	}
	t.prev, t.next = nil, nil
}
