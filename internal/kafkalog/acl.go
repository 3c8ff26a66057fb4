package kafkalog

import (
	"fmt"

	"github.com/starling-fleet/starling/schemas/topics"
)

// ACL permits operations on one resource.
type ACL struct {
	// Kind is what the resource is: topic, group or transactional-id.
	Kind string `json:"kind"`
	// Name is its name, or with Prefixed how the names of several begin.
	Name     string `json:"name"`
	Prefixed bool   `json:"prefixed,omitempty"`
	// Operations are Kafka's names of them.
	Operations []string `json:"operations"`
}

// Group is a group of owners, and the topic that they keep state in.
type Group struct{ Name, State string }

// ACLs returns what the processes of a role need on a cluster, and no more: the
// start of each describes all topics and reads the log's epoch. Creating topics is
// an operator's right.
func ACLs(cfg Config, role string, groups ...Group) []ACL {
	access := map[string]topics.Access{metaTopic: {Read: true}}
	for _, a := range topics.AccessOf(role) {
		access[a.Topic] = a
	}
	var out []ACL
	for _, t := range append([]topics.Topic{{Name: metaTopic}}, topics.All()...) {
		a := ACL{Kind: "topic", Name: cfg.TopicPrefix + t.Name, Operations: []string{"Describe", "DescribeConfigs"}}
		if access[t.Name].Read {
			a.Operations = append(a.Operations, "Read")
		}
		if access[t.Name].Write {
			a.Operations = append(a.Operations, "Write")
		}
		out = append(out, a)
	}
	for _, g := range groups {
		group := cfg.TopicPrefix + g.Name
		out = append(out,
			ACL{Kind: "group", Name: group, Operations: []string{"Describe", "Read"}},
			ACL{Kind: "transactional-id", Name: transactionalPrefix(group, cfg.TopicPrefix+g.State), Prefixed: true, Operations: []string{"Describe", "Write"}})
	}
	return out
}

// Command is the line of Kafka's own tool that permits it to a principal.
func (a ACL) Command(principal string) string {
	line := fmt.Sprintf("kafka-acls.sh --add --allow-principal %s", principal)
	for _, op := range a.Operations {
		line += " --operation " + op
	}
	line += fmt.Sprintf(" --%s %s", a.Kind, a.Name)
	if a.Prefixed {
		line += " --resource-pattern-type prefixed"
	}
	return line
}
