package adapt

import (
	"cmp"
	"math"
	"slices"
)

// Near-duplicates: two pictures of a class are one group when the cosine of their class tokens is at least
// sameCosine, or when their difference hashes differ in at most sameBits of 64 bits.
const (
	sameCosine = 0.95
	sameBits   = 4
)

// Group names the group of every picture; tokens is [pictures, width], what Features returned. Pictures of
// one object folder are one group. The others are taken in the order of their content's hash, and each joins
// the first group of its class whose leader (for object folders: any picture) is nearly the same, or leads a
// group of its own. Joining leaders, not members, keeps a chain of small steps, as a fixed camera
// makes, from becoming one group. Names of files play no part.
func (s *Labelled) Group(tokens []float32, width int) {
	unit := slices.Clone(tokens)
	for i := range s.Pictures {
		normalise(unit[i*width : (i+1)*width])
	}
	row := func(i int) []float32 { return unit[i*width : (i+1)*width] }

	leaders := make([][]int, len(s.Classes)) // pictures that others may join, in order
	var loose []int
	for i := range s.Pictures {
		p := &s.Pictures[i]
		if p.Object == "" {
			loose = append(loose, i)
			continue
		}
		p.Group = s.Classes[p.Class] + "/" + p.Object
		leaders[p.Class] = append(leaders[p.Class], i)
	}
	slices.SortStableFunc(loose, func(a, b int) int { return cmp.Compare(s.Pictures[a].SHA256, s.Pictures[b].SHA256) })
	for _, i := range loose {
		p := &s.Pictures[i]
		at := slices.IndexFunc(leaders[p.Class], func(l int) bool {
			return hamming(p.hash, s.Pictures[l].hash) <= sameBits || dot(row(i), row(l)) >= sameCosine
		})
		if at >= 0 {
			p.Group = s.Pictures[leaders[p.Class][at]].Group
			continue
		}
		p.Group = s.Classes[p.Class] + "/" + p.SHA256[:12]
		leaders[p.Class] = append(leaders[p.Class], i)
	}
}

// Split keeps a quarter of each class's groups, rounded up, apart for acceptance. Which ones depends on the
// content of the files alone: groups stand in the order of their smallest SHA-256. A class with one group
// keeps nothing apart; Split returns the names of such classes.
func (s *Labelled) Split() (single []string) {
	key := map[string]string{} // group -> smallest digest
	groups := make([][]string, len(s.Classes))
	for _, p := range s.Pictures {
		least, known := key[p.Group]
		if !known {
			groups[p.Class] = append(groups[p.Class], p.Group)
		}
		if !known || p.SHA256 < least {
			key[p.Group] = p.SHA256
		}
	}
	part := map[string]Part{}
	for class, names := range groups {
		slices.SortFunc(names, func(a, b string) int { return cmp.Compare(key[a], key[b]) })
		apart := (len(names) + 3) / 4
		if len(names) == 1 {
			apart = 0
			single = append(single, s.Classes[class])
		}
		for i, name := range names {
			part[name] = Fit
			if i < apart {
				part[name] = Accept
			}
		}
	}
	for i := range s.Pictures {
		s.Pictures[i].Part = part[s.Pictures[i].Group]
	}
	return single
}

// Divided says whether every picture has its part already: a set that WriteTo left.
func (s *Labelled) Divided() bool {
	return !slices.ContainsFunc(s.Pictures, func(p LabelledPicture) bool { return p.Part == "" })
}

// Objects counts the objects as the folders tell them: each object folder, and each picture outside of one.
func (s *Labelled) Objects() int {
	seen := map[string]bool{}
	loose := 0
	for _, p := range s.Pictures {
		if p.Object == "" {
			loose++
			continue
		}
		seen[s.Classes[p.Class]+"/"+p.Object] = true
	}
	return loose + len(seen)
}

// Groups counts the groups of a part, of all parts with "".
func (s *Labelled) Groups(part Part) int {
	seen := map[string]bool{}
	for _, p := range s.Pictures {
		if part == "" || p.Part == part {
			seen[p.Group] = true
		}
	}
	return len(seen)
}

func normalise(v []float32) {
	if n := float32(math.Sqrt(float64(dot(v, v)))); n > 0 {
		for i := range v {
			v[i] /= n
		}
	}
}

func dot(a, b []float32) float32 {
	var sum float32
	for i, v := range a {
		sum += v * b[i]
	}
	return sum
}
