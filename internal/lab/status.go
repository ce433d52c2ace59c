package lab

// ProcessStatus is a process of a lab, as it is now.
type ProcessStatus struct {
	Node    string `json:"node"`
	Process string `json:"process"`
	PID     int    `json:"pid"` // 0: was never started
	Running bool   `json:"running"`
	Log     string `json:"log"`
}

// Status is a lab, as it is now.
type Status struct {
	Name      string          `json:"name"`
	Topology  string          `json:"topology"`
	Dir       string          `json:"dir"`
	Complete  bool            `json:"complete"` // up came to its end
	Nodes     []string        `json:"nodes"`
	Processes []ProcessStatus `json:"processes"`
}

// Status says what runs. A process that was started again is listed once, with its newest id.
func (l *Lab) Status() Status {
	s := Status{
		Name: l.name, Topology: l.topology.Name, Dir: l.Dir(""), Complete: l.state.Complete, Nodes: l.topology.namespaces(),
	}
	newest := map[[2]string]entry{}
	for _, e := range l.entries() {
		newest[[2]string{e.Node, e.Name}] = e
	}
	for _, n := range l.topology.Nodes {
		for _, p := range n.Processes {
			e := newest[[2]string{n.Name, p.Name}]
			s.Processes = append(s.Processes, ProcessStatus{
				Node: n.Name, Process: p.Name, PID: e.PID, Running: e.PID != 0 && e.alive(), Log: l.LogPath(n.Name, p.Name),
			})
		}
	}
	return s
}
