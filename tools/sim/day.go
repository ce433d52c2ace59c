package main

import "math"

const (
	stepSeconds = 60
	steps       = 24 * 60

	surgingNetwork = 30 // by size

	surgeFrom, surgeTo = 10 * 60, 10*60 + 30 // minutes: a network has six times its users
	rackFrom, rackTo   = 15 * 60, 15*60 + 20 // a rack of servers is out
	stepFrom, stepTo   = 20 * 60, 20*60 + 45 // half as much again in one zone, at once
	flapFrom, flapTo   = 6 * 60, 7 * 60      // some servers die each other minute
)

// active says how much of each class is active at a minute of the day.
func active(minute int) (a [classes]float64) {
	hour := float64(minute) / 60
	for z := range zones {
		local := hour + 2*float64(z) // zones are two hours apart
		level := 0.08 + 0.17*(1+math.Cos(2*math.Pi*(local-20)/24))
		if z == 0 && minute >= stepFrom && minute < stepTo {
			level *= 1.5
		}
		a[z] = level
		a[zones+z] = level * hour / 24 // who comes in the course of the day
	}
	a[surging] = 0.08
	if minute >= surgeFrom && minute < surgeTo {
		a[surging] = 0.48
	}
	return a
}

// noise is the chance in who is active: sessions last some ten minutes.
type noise struct {
	deviation []float64 // per slot, in standard deviations
}

const sessionMemory = 0.9

func (n *noise) step(normal func() float64) {
	for i := range n.deviation {
		n.deviation[i] = sessionMemory*n.deviation[i] + math.Sqrt(1-sessionMemory*sessionMemory)*normal()
	}
}
