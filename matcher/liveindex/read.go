package liveindex

// Get returns the newest state of a vehicle.
func (x *Index) Get(id string) (v Vehicle, ok bool) { return x.get(id, x.read) }

// GetWhole does so with what the filter has learned.
func (x *Index) GetWhole(id string) (v Vehicle, ok bool) { return x.get(id, x.readWhole) }

func (x *Index) get(id string, read func(*state, *Vehicle)) (v Vehicle, ok bool) {
	r, _ := x.pin()
	defer r.unpin()
	s := x.newest(id)
	if s == nil {
		return Vehicle{}, false
	}
	read(s, &v)
	return v, true
}

// Has returns whether a vehicle is known.
func (x *Index) Has(id string) bool {
	r, _ := x.pin()
	defer r.unpin()
	return x.newest(id) != nil
}

// Page appends to dst the first n vehicles by id whose ids are above after,
// each in its newest state, with what the filter has learned. If there are more, next is the id to go on after,
// else it is empty. A vehicle that is there all the while is on exactly one of
// the pages of one walk; one that comes or goes meanwhile is on one or none.
// It costs what the page holds, whatever the size of the fleet.
func (x *Index) Page(after string, n int, dst []Vehicle) (page []Vehicle, next string) {
	if n < 1 {
		return dst, ""
	}
	r, _ := x.pin()
	defer r.unpin()
	numbers := x.order.after(after, n+1, nil)
	if len(numbers) > n {
		numbers = numbers[:n]
		next = x.vehicles.at(numbers[n-1]).id()
	}
	for _, number := range numbers {
		if current := x.vehicles.at(number).current.Load(); current != 0 {
			dst = append(dst, Vehicle{})
			x.readWhole(x.states.at(current-1), &dst[len(dst)-1])
		}
	}
	return dst, next
}
