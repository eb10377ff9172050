package engine

import "strings"

// stopper turns tokens into text and watches for stop strings, which may begin in
// one token and end in another: text that could be the beginning of a stop
// string is held back until that is decided.
type stopper struct {
	decode TextDecoder
	stops  []string
	held   string
}

// push adds a token and returns the text that is now certain, and whether a stop
// string ended the answer. Text from the stop string on is never returned.
func (s *stopper) push(id int32) (text string, stopped bool) {
	return s.take(s.decode.Push(id))
}

// flush returns what is left at the end of an answer.
func (s *stopper) flush() (string, bool) {
	text, stopped := s.take(s.decode.Flush())
	if !stopped {
		text += s.held
	}
	s.held = ""
	return text, stopped
}

func (s *stopper) take(more string) (string, bool) {
	s.held += more
	// Of several, the one that ends first, as if text came character by character:
	// where tokens end must not matter.
	first, end := -1, 0
	for _, stop := range s.stops {
		if i := strings.Index(s.held, stop); i >= 0 && (first < 0 || i+len(stop) < end || i+len(stop) == end && i < first) {
			first, end = i, i+len(stop)
		}
	}
	if first >= 0 {
		text := s.held[:first]
		s.held = ""
		return text, true
	}
	keep := 0
	for _, stop := range s.stops {
		for n := min(len(stop)-1, len(s.held)); n > keep; n-- {
			if strings.HasSuffix(s.held, stop[:n]) {
				keep = n
				break
			}
		}
	}
	text := s.held[:len(s.held)-keep]
	s.held = s.held[len(s.held)-keep:]
	return text, false
}
