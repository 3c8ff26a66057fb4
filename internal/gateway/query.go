package gateway

import (
	"maps"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"github.com/grpc-ecosystem/grpc-gateway/v2/utilities"
	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
)

// wrongValue is the first parameter whose value its field can't take. The library
// names none.
func wrongValue(m protoreflect.MessageDescriptor, values url.Values) *fault {
	kind, err := protoregistry.GlobalTypes.FindMessageByName(m.FullName())
	if err != nil {
		return nil // the handler, which has the type, will refuse it
	}
	msg, nothing := kind.New().Interface(), utilities.NewDoubleArray(nil)
	// In order, so that the same request has the same answer.
	for _, key := range slices.Sorted(maps.Keys(values)) {
		if err := new(runtime.DefaultQueryParser).Parse(msg, url.Values{key: values[key]}, nothing); err != nil {
			return &fault{field: key, rule: err.Error()}
		}
	}
	return nil
}

// queries knows which message the parameters of a GET belong to, by its path as
// runtime.Pattern writes it.
type queries map[string]protoreflect.MessageDescriptor

// bareVariable is a variable of a path template without a pattern.
var bareVariable = regexp.MustCompile(`\{([\w.]+)\}`)

// learn adds the paths of a service.
func (q queries) learn(service protoreflect.ServiceDescriptor) {
	for i := range service.Methods().Len() {
		m := service.Methods().Get(i)
		rule, _ := proto.GetExtension(m.Options(), annotations.E_Http).(*annotations.HttpRule)
		if rule == nil {
			continue
		}
		for _, r := range append(rule.GetAdditionalBindings(), rule) {
			if path := r.GetGet(); path != "" {
				q[bareVariable.ReplaceAllString(path, "{$1=*}")] = m.Input()
			}
		}
	}
}

// check is middleware that refuses parameters which no field takes, which the
// library passes over, and values that their fields can't take.
func (q queries) check(next runtime.HandlerFunc) runtime.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request, inPath map[string]string) {
		pattern, _ := runtime.HTTPPattern(r.Context())
		if m, isGet := q[pattern.String()]; isGet && r.Method == http.MethodGet {
			values := r.URL.Query()
			f := unknown(m, values, inPath)
			if f == nil {
				f = wrongValue(m, values)
			}
			if f != nil {
				writeStatus(w, http.StatusBadRequest, f.status())
				return
			}
		}
		next(w, r, inPath)
	}
}

// unknown is the first parameter that sets no field of m, or one that is set
// already.
func unknown(m protoreflect.MessageDescriptor, values url.Values, inPath map[string]string) *fault {
	given := map[string]string{}
	for _, key := range slices.Sorted(maps.Keys(values)) {
		name := strings.Join(fieldPath(m, key), ".")
		if name == "" {
			return &fault{field: key, rule: "unknown parameter"}
		}
		if _, set := inPath[name]; set {
			return &fault{field: key, rule: "is given by the path"}
		}
		if other, twice := given[name]; twice {
			return &fault{field: key, rule: "is the same as " + other}
		}
		given[name] = key
	}
	return nil
}

// fieldPath resolves a dotted path of field names or JSON names; nil when there
// is no such field.
func fieldPath(m protoreflect.MessageDescriptor, key string) []string {
	var path []string
	for name := range strings.SplitSeq(key, ".") {
		if m == nil {
			return nil
		}
		field := m.Fields().ByTextName(name)
		if field == nil {
			field = m.Fields().ByJSONName(name)
		}
		if field == nil {
			return nil
		}
		path = append(path, string(field.Name()))
		m = field.Message()
		if field.IsList() {
			m = nil // its elements have no names
		}
	}
	return path
}
