package store

import "time"

// Reason says why a frame is kept, or why it is not.
type Reason string

// Why a frame is kept.
const (
	Novel     Reason = "novel"      // unlike all that is kept of its camera
	Uncertain Reason = "uncertain"  // the model hesitates between two classes
	Disputed  Reason = "disputed"   // the model looks beside the object
	RareClass Reason = "rare class" // of a class of which little is kept
	RareHour  Reason = "rare hour"  // from a time of day of which little is kept
)

// Why it is not.
const (
	Burst    Reason = "burst"    // one of this camera was kept a moment ago
	Known    Reason = "known"    // one much like it is kept
	Ordinary Reason = "ordinary" // nothing speaks for it
)

// Taste is how frames are chosen. The zero value keeps nothing; see DefaultTaste.
type Taste struct {
	// Apart is the least cosine distance, 0 to 2, of a frame's features to those of any kept one of its camera
	// and network. Nearer ones are never kept.
	Apart float64
	// Novel is the cosine distance from which on a frame is kept for that alone.
	Novel float64
	// Margin is the difference of the two highest probabilities, 0 to 1, below which the model is uncertain.
	Margin float64
	// Relevance is the share of the model's relevance on the object, 0 to 1, below which its answer is
	// disputed: it looks at the background.
	Relevance float64
	// Rare is the part of an even share, 0 to 1, below which a class or a time of day is rare.
	Rare float64
	// Every is the least time between two kept frames of one camera.
	Every time.Duration
}

// DefaultTaste is right for normalised class tokens of a DINOv2: frames of an empty fixed view have cosines of
// about .99 to each other, two objects in it mostly less than .8.
var DefaultTaste = Taste{Apart: 0.06, Novel: 0.15, Margin: 0.2, Relevance: 0.3, Rare: 0.5, Every: 10 * time.Second}

// Candidate is a frame that may be worth keeping.
type Candidate struct {
	Camera   string
	Time     time.Time
	Features []float32 // as Sample.Features
	Backbone string

	Predicted string
	Margin    float64  // 0 to 1; of a model without classes 1
	Relevance *float64 // nil where it is not known
}

// Surroundings is what is kept around a candidate.
type Surroundings struct {
	Since     time.Duration // between the candidate and the newest kept one of its camera; negative: there is none
	Distance  float64       // cosine distance to the nearest kept one of its camera and network; 2 where there is none
	Samples   int           // kept, of all cameras
	OfClass   int           // of them with the candidate's prediction
	Classes   int           // predicted among all, the candidate's included
	OfCamera  int           // kept of its camera
	OfDayPart int           // of them from its part of the day
	DayParts  int           // from which there are any, the candidate's included
}

// Judge says whether a frame is worth keeping, and why. It is a pure function of what it is given.
func (t Taste) Judge(c Candidate, s Surroundings) (Reason, bool) {
	switch {
	case s.Since >= 0 && s.Since < t.Every:
		return Burst, false
	case s.Distance < t.Apart:
		return Known, false
	case s.Distance >= t.Novel:
		return Novel, true
	case c.Margin < t.Margin:
		return Uncertain, true
	case c.Relevance != nil && *c.Relevance < t.Relevance:
		return Disputed, true
	case t.rare(s.OfClass, s.Samples, s.Classes):
		return RareClass, true
	case t.rare(s.OfDayPart, s.OfCamera, s.DayParts):
		return RareHour, true
	}
	return Ordinary, false
}

// rare tells whether n of all is less than Rare of what each of parts would have.
func (t Taste) rare(n, all, parts int) bool { return float64(n*parts) < t.Rare*float64(all) }

// Around looks at what is kept around a candidate. It compares the features with those of every sample of the
// camera, roughly first: BenchmarkChoose.
func (s *Samples) Around(c Candidate) Surroundings {
	unit := unitOf(roundTrip(c.Features))
	s.mu.RLock()
	defer s.mu.RUnlock()
	x := s.index
	around := Surroundings{Since: -1, Distance: 2, Samples: len(x.entries), OfClass: x.classes[c.Predicted], Classes: len(x.classes)}
	if around.OfClass == 0 {
		around.Classes++
	}
	if camera := x.cameras[c.Camera]; camera != nil {
		around.Since = c.Time.Sub(camera.newest.Time).Abs() // a clock that went back is as good as one that went on
		around.OfCamera, around.OfDayPart = camera.samples, camera.hours[dayPart(c.Time)]
		for part, n := range camera.hours {
			if n > 0 || part == dayPart(c.Time) {
				around.DayParts++
			}
		}
	} else {
		around.DayParts = 1
	}
	if g := x.groups[groupKey{c.Camera, c.Backbone}]; g != nil {
		if cosine, found := g.cosine(unit); found {
			around.Distance = 1 - float64(cosine)
		}
	}
	return around
}
