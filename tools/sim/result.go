package main

import "github.com/manycast/manycast/internal/alloc"

// day is what came of one policy's day. Loads are traffic by capacity; means are over the day.
type day struct {
	Policy     alloc.Policy `json:"policy"`
	Highest    float64      `json:"max_by_mean"`
	P99        float64      `json:"p99_by_mean"`
	Deviation  float64      `json:"deviation_by_mean"`
	Epochs     int          `json:"epochs"`
	Moved      float64      `json:"space_moved"` // parts of the space, summed up over the day
	Needed     float64      `json:"space_needed"`
	Followed   float64      `json:"space_moved_by_reports"`
	UsersMoved float64      `json:"users_moved"` // parts of the active users
	MostMoved  float64      `json:"users_moved_most_in_a_minute"`
	TurnsMean  float64      `json:"turns_per_server"`
	TurnsMost  int          `json:"turns_most"`
	Rack       int          `json:"rack_minutes"` // until loads are as far apart as before again; -1: not
	RackBack   int          `json:"rack_back_minutes"`
	Surge      int          `json:"surge_minutes"`
	Step       int          `json:"step_minutes"`

	highest, most, spread, mean, move []float64 // per minute
}

func (r *run) result() *day {
	m := r.measures
	all, most := m.turns()
	d := &day{
		Policy: r.rules.Policy, Highest: average(m.highest), P99: average(m.most), Deviation: average(m.spread), Epochs: m.epochs,
		Moved: m.space, Needed: m.needed, Followed: m.followed, UsersMoved: m.users, MostMoved: quantile(m.move, 1),
		TurnsMean: float64(all) / float64(len(r.f.servers)), TurnsMost: most,
		Rack: m.settled(rackFrom, rackTo-rackFrom), RackBack: m.settled(rackTo, 60), Surge: m.settled(surgeFrom, surgeTo-surgeFrom), Step: m.settled(stepFrom, stepTo-stepFrom),
		highest: m.highest, most: m.most, spread: m.spread, mean: m.mean, move: m.move,
	}
	return d
}
