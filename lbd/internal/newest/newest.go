// Package newest hands a loop what it is to work with: the newest alone, for what came before is out of date.
package newest

// Value holds what the loop has not taken yet.
type Value[T any] chan T

// New returns one that holds nothing.
func New[T any]() Value[T] { return make(Value[T], 1) }

// Set makes v the newest. Any goroutine may call it; it does not wait.
func (c Value[T]) Set(v T) {
	for {
		select {
		case c <- v:
			return
		default:
		}
		select { // what nobody has looked at is out of date
		case <-c:
		default:
		}
	}
}
