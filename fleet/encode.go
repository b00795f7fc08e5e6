package fleet

import (
	"math"
	"reflect"
)

// Known returns a pointer to x, or nil, which payloads leave out, if x is not a
// finite number.
func Known(x float64) *float64 {
	if math.IsNaN(x) || math.IsInf(x, 0) {
		return nil
	}
	return &x
}

// dropNonFinite sets every *float64 below v that JSON cannot say to nil, so
// that one NaN does not silence a device. It changes a Health's maps and
// pointers only by replacing them.
func dropNonFinite(v reflect.Value) {
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() {
				dropNonFinite(v.Field(i))
			}
		}
	case reflect.Pointer:
		if f, ok := v.Interface().(*float64); ok {
			if f != nil && Known(*f) == nil {
				v.SetZero()
			}
			return
		}
		if v.IsNil() || v.Elem().Kind() != reflect.Struct {
			return
		}
		fresh := reflect.New(v.Type().Elem())
		fresh.Elem().Set(v.Elem())
		dropNonFinite(fresh.Elem())
		v.Set(fresh)
	case reflect.Map:
		if v.IsNil() || v.Type().Elem().Kind() != reflect.Struct {
			return
		}
		fresh := reflect.MakeMapWithSize(v.Type(), v.Len())
		for _, k := range v.MapKeys() {
			e := reflect.New(v.Type().Elem()).Elem()
			e.Set(v.MapIndex(k))
			dropNonFinite(e)
			fresh.SetMapIndex(k, e)
		}
		v.Set(fresh)
	}
}
