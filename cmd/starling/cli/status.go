package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/starling-fleet/starling/client"
	"github.com/starling-fleet/starling/cmd/starling/app"
	"github.com/starling-fleet/starling/cmd/starling/cli/dialect"
)

// maxStatusBytes bounds what is read of a process's status.
const maxStatusBytes = 1 << 20

// processStatus is what is printed of one process.
type processStatus struct {
	Admin string `json:"admin"`
	app.Status
}

func newStatus(world IO) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "status",
		Short:   "Print how processes are: roles, readiness, partitions, lag, epoch, vehicles",
		GroupID: "ask",
		Args:    usageArgs(cobra.NoArgs),
		Long: `Print how processes are, by their admin servers: roles, readiness, partitions and
how many of them this tracker owns, records that it has not stepped yet, the log's
epoch, and the vehicles that a matcher knows. With --json each process is a line. A
process that is not ready gives exit code 3.`,
		Example: `  starling status
  starling status --admin 127.0.0.1:7602,127.0.0.1:7702,127.0.0.1:7802 --json`,
	}
	admins := cmd.Flags().StringSlice("admin", []string{"127.0.0.1:7602"}, "Address of a process's admin server (several allowed).")
	timeout := cmd.Flags().Duration("timeout", 10*time.Second, "How long to wait for the answers.")
	asJSON := jsonFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := positive("timeout", *timeout); err != nil {
			return err
		}
		access, err := access(cmd)
		if err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(cmd.Context(), *timeout)
		defer cancel()
		var all []processStatus
		for _, addr := range *admins {
			s, err := askStatus(ctx, addr, access)
			if err != nil {
				return fmt.Errorf("status of %s: %w", addr, err)
			}
			all = append(all, processStatus{addr, s})
		}
		if err := printStatus(world.Out, all, *asJSON); err != nil {
			return err
		}
		for _, s := range all {
			if !s.Ready {
				return answerNo("the process at %s is not ready", s.Admin)
			}
		}
		return nil
	}
	return cmd
}

func askStatus(ctx context.Context, addr string, access client.DialOptions) (s app.Status, err error) {
	scheme := "http://"
	if access.TLS != nil {
		scheme = "https://"
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, scheme+addr+"/status", nil)
	if err != nil {
		return s, usage(fmt.Errorf("%q is no address", addr))
	}
	if access.Token != nil {
		token, err := access.Token(ctx)
		if err != nil {
			return s, usage(fmt.Errorf("--token-file: %w", err))
		}
		req.Header.Set("Authorization", "Bearer "+token)
	}
	// Admin servers are asked directly, whatever proxy the environment names.
	answer, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: access.TLS}}).Do(req)
	if err != nil {
		var wrapped *url.Error
		if errors.As(err, &wrapped) {
			err = wrapped.Err // the address has been named
		}
		if withoutTLS(err.Error()) {
			err = errServerHasNot
		}
		return s, explain(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(io.LimitReader(answer.Body, maxStatusBytes))
	if err != nil {
		return s, explain(err)
	}
	if plainToTLS(answer, text) {
		return s, errServerHasTLS
	}
	if answer.StatusCode != http.StatusOK {
		return s, fmt.Errorf("%s: %s", answer.Status, strings.TrimSpace(string(text)))
	}
	if err := json.Unmarshal(text, &s); err != nil {
		return s, errors.New("this is no admin server of Starling")
	}
	return s, nil
}

func printStatus(w io.Writer, all []processStatus, asJSON bool) error {
	if asJSON {
		for _, s := range all {
			if err := dialect.Print(w, s); err != nil {
				return err
			}
		}
		return nil
	}
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(tw, "ADMIN\tROLES\tREADY\tPARTITIONS\tOWNED\tLAG\tEPOCH\tVEHICLES\tSTALE\tSTREAMS\tVERSION")
	for _, s := range all {
		var roles []string
		for _, role := range s.Roles {
			roles = append(roles, string(role))
		}
		ready := "yes"
		switch {
		case s.Failure != "":
			ready = "failed: " + s.Failure
		case !s.Ready:
			ready = "no: " + s.Unready
		}
		_, _ = fmt.Fprintf(tw, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", s.Admin, strings.Join(roles, "+"), ready,
			known(s.Partitions), known(s.OwnedPartitions), known(s.LagRecords), known(s.Epoch), known(s.Vehicles), known(s.StalePartitions), known(s.Streams), s.Version)
	}
	return tw.Flush()
}

// known is a number, or a dash when it is absent.
func known[T int32 | int64](n *T) string {
	if n == nil {
		return "-"
	}
	return fmt.Sprint(*n)
}
