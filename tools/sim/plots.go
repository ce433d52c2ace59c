package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// plot writes the charts.
func plot(dir string, days []*day, costs []cost) error {
	var err error
	for name, c := range map[string]chart{
		"imbalance.svg":   imbalance(days),
		"movement.svg":    movement(days),
		"convergence.svg": convergence(days),
		"epoch.svg":       epochs(costs),
	} {
		err = errors.Join(err, os.WriteFile(filepath.Join(dir, name), []byte(c.svg()), 0o644))
	}
	return err
}

func imbalance(days []*day) chart {
	c := chart{title: "Load of the server at the 99th percentile, by the mean", x: "hour of the day", y: "p99 / mean, of five minutes", most: 3}
	for i, d := range days {
		c.series = append(c.series, bucketed(string(d.Policy), i, d.most, 5, 1.0/5))
	}
	return c
}

func movement(days []*day) chart {
	c := chart{title: "Users who get another server", x: "hour of the day", y: "% of the active users, in ten minutes", most: 10}
	for i, d := range days {
		c.series = append(c.series, bucketed(string(d.Policy), i, d.move, 10, 100))
	}
	return c
}

// bucketed sums up so many minutes at a time.
func bucketed(name string, color int, of []float64, size int, factor float64) series {
	s := series{name: name, color: color}
	for i := 0; i+size <= len(of); i += size {
		n := 0.0
		for _, v := range of[i : i+size] {
			n += v
		}
		s.x, s.y = append(s.x, float64(i)/60), append(s.y, n*factor)
	}
	return s
}

func convergence(days []*day) chart {
	c := chart{title: fmt.Sprintf("One server in %d fails at 15:00 and is back at 15:20", rackPart), x: "minutes after 15:00", y: "deviation of loads / mean"}
	for i, d := range days {
		s := series{name: string(d.Policy), color: i}
		for m := rackFrom - 10; m < rackTo+30; m++ {
			s.x, s.y = append(s.x, float64(m-rackFrom)), append(s.y, d.spread[m])
		}
		c.series = append(c.series, s)
	}
	return c
}

func epochs(costs []cost) chart {
	c := chart{title: "What an epoch says, after a server has failed", x: "servers", y: "bytes", log: true}
	for i, bits := range costBits {
		control, joins := series{name: fmt.Sprintf("%d slots", 1<<bits), color: i}, series{name: "its joins", color: i, dashed: true}
		for _, e := range costs {
			if e.SlotBits == bits && e.Frames > 0 && e.JoinParts > 0 {
				control.x, control.y = append(control.x, float64(e.Servers)), append(control.y, float64(e.Bytes))
				joins.x, joins.y = append(joins.x, float64(e.Servers)), append(joins.y, float64(e.Joins))
			}
		}
		c.series = append(c.series, control, joins)
	}
	return c
}
