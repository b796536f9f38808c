// SPDX-License-Identifier: Apache-2.0

package getty

// Funcs is an [EventListener] made of functions; nil ones do nothing. It saves a type with five
// methods where a listener needs two of them. A listener with other callbacks, such as OnWritable,
// is a type of its own, which may embed a Funcs.
type Funcs struct {
	Open    func(Session) error
	Message func(s Session, pkg any)
	Cron    func(Session)
	Error   func(s Session, err error)
	Close   func(Session)
}

var _ EventListener = Funcs{}

// OnOpen implements [EventListener].
func (f Funcs) OnOpen(s Session) error {
	if f.Open == nil {
		return nil
	}
	return f.Open(s)
}

// OnMessage implements [EventListener].
func (f Funcs) OnMessage(s Session, pkg any) {
	if f.Message != nil {
		f.Message(s, pkg)
	}
}

// OnCron implements [EventListener].
func (f Funcs) OnCron(s Session) {
	if f.Cron != nil {
		f.Cron(s)
	}
}

// OnError implements [EventListener].
func (f Funcs) OnError(s Session, err error) {
	if f.Error != nil {
		f.Error(s, err)
	}
}

// OnClose implements [EventListener].
func (f Funcs) OnClose(s Session) {
	if f.Close != nil {
		f.Close(s)
	}
}
