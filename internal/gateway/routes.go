package gateway

import (
	"net/http"
	"regexp"
	"slices"
	"strings"

	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// documentPath is where the OpenAPI document is.
const documentPath = "/openapi.json"

// route is a path and the HTTP methods that it has.
type route struct {
	path    *regexp.Regexp
	methods []string
}

// routes are the paths of a gateway. The library that hands a request to its
// method does not state which others a path has.
type routes []route

// variable is a variable of a path template, with or without a pattern.
var variable = regexp.MustCompile(`\{[\w.]+(?:=([^}]*))?\}`)

// learn adds the paths of a service. A path that can be read has HEAD too.
func (r *routes) learn(service protoreflect.ServiceDescriptor) {
	for i := range service.Methods().Len() {
		rule, _ := proto.GetExtension(service.Methods().Get(i).Options(), annotations.E_Http).(*annotations.HttpRule)
		if rule == nil {
			continue
		}
		for _, binding := range append(rule.GetAdditionalBindings(), rule) {
			if path := binding.GetGet(); path != "" {
				r.add(path, http.MethodGet, http.MethodHead)
			}
			if path := binding.GetPost(); path != "" {
				r.add(path, http.MethodPost)
			}
		}
	}
}

// add adds methods to a path template.
func (r *routes) add(template string, methods ...string) {
	path := regexp.MustCompile("^" + expression(template) + "$")
	for i := range *r {
		if known := &(*r)[i]; known.path.String() == path.String() {
			known.methods = append(known.methods, methods...)
			return
		}
	}
	*r = append(*r, route{path, methods})
}

// expression is a path template as a regular expression. A star stands for a
// segment, in which a colon would begin the verb.
func expression(template string) string {
	var b strings.Builder
	segments := func(text string) {
		for i, part := range strings.Split(text, "*") {
			if i > 0 {
				b.WriteString("[^/:]+")
			}
			b.WriteString(regexp.QuoteMeta(part))
		}
	}
	for {
		at := variable.FindStringSubmatchIndex(template)
		if at == nil {
			segments(template)
			return b.String()
		}
		segments(template[:at[0]])
		if at[2] < 0 {
			segments("*")
		} else {
			segments(template[at[2]:at[3]])
		}
		template = template[at[1]:]
	}
}

// methods are those of a path, in order; none if there is no such path.
func (r routes) methods(path string) []string {
	var all []string
	for _, known := range r {
		if known.path.MatchString(path) {
			all = append(all, known.methods...)
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// route answers what no method has, before anything of a body is read, and has a
// HEAD answered as the GET that it stands for.
func (g *Gateway) route(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		allowed := g.routes.methods(r.URL.Path)
		switch {
		case len(allowed) == 0:
			writeStatus(w, http.StatusNotFound, noSuchPath(r.URL.Path))
		case !slices.Contains(allowed, r.Method):
			w.Header().Set("Allow", strings.Join(allowed, ", "))
			writeStatus(w, http.StatusMethodNotAllowed, methodNotAllowed(r))
		case r.Method == http.MethodHead:
			next.ServeHTTP(headOf(w, r))
		default:
			next.ServeHTTP(w, r)
		}
	})
}
