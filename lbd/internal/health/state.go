package health

// State is what is known of the application from the results of its probes. The first one decides: an agent that starts anew
// beside an application that goes on must not take it out of the pool.
type State struct {
	failures  int // that many in a row change healthy to unhealthy
	successes int // that many in a row change unhealthy to healthy
	probed    bool
	healthy   bool
	against   int // results in a row that speak against healthy
}

// NewState returns the state before the first probe, unhealthy, with the thresholds of c.
func NewState(c Config) *State {
	return &State{failures: c.Failures, successes: c.Successes}
}

// Healthy is the present verdict.
func (s *State) Healthy() bool { return s.healthy }

// Result takes the result of one probe and tells whether the verdict is new.
func (s *State) Result(ok bool) (isNew bool) {
	if !s.probed {
		s.probed, s.healthy = true, ok
		return true
	}
	if ok == s.healthy {
		s.against = 0
		return false
	}
	s.against++
	need := s.successes
	if s.healthy {
		need = s.failures
	}
	if s.against < need {
		return false
	}
	s.healthy, s.against = ok, 0
	return true
}
