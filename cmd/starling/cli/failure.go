package cli

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/starling-fleet/starling/internal/config"
	"github.com/starling-fleet/starling/internal/eventlog"
)

// dialFault finds in gRPC's text why a connection could not be made.
var dialFault = regexp.MustCompile(`(?:Error while dialing: |error reading server preface: |authentication handshake failed: )(?:dial \w+ [^ ]+: )?(?:connect: )?([^"]+)`)

// explain writes out a server's error for a person: the rule that was broken, or
// why there is no connection.
func explain(err error) error {
	s, ok := status.FromError(err)
	if !ok {
		return err
	}
	message := s.Message()
	if found := dialFault.FindStringSubmatch(message); found != nil && s.Code() == codes.Unavailable {
		return fmt.Errorf("no connection: %s", found[1])
	}
	if s.Code() == codes.DeadlineExceeded && message == context.DeadlineExceeded.Error() {
		return errors.New("no answer in time")
	}
	var reason string
	for _, d := range s.Details() {
		if info, ok := d.(*errdetails.ErrorInfo); ok && s.Code() != codes.InvalidArgument && s.Code() != codes.NotFound {
			reason = info.GetReason()
		}
	}
	if reason == "" && s.Code() != codes.InvalidArgument && s.Code() != codes.NotFound {
		reason = s.Code().String()
	}
	if reason != "" {
		return fmt.Errorf("%s: %s", reason, message)
	}
	return errors.New(message)
}

// asked gives a failed question to a server its exit code and its text: what the
// server refuses because of the request is wrong usage, what it does not know is
// an answer.
func asked(err error, format string, args ...any) error {
	if err == nil {
		return nil
	}
	out := fmt.Errorf("%s: %w", fmt.Sprintf(format, args...), explain(err))
	switch status.Code(err) {
	case codes.InvalidArgument, codes.OutOfRange:
		return usage(out)
	case codes.NotFound:
		return &codedError{exitNo, out}
	default:
		return out
	}
}

// setupError gives the exit code of wrong configuration to a log that is set
// otherwise than the configuration.
func setupError(err error) error {
	if errors.Is(err, eventlog.ErrConfiguredOtherwise) {
		return usage(err)
	}
	return err
}

// flagError words a flag's fault without the names of Go's functions.
func flagError(cmd *cobra.Command, err error) error {
	var invalid *pflag.InvalidValueError
	if errors.As(err, &invalid) {
		if rule := config.TypeRule(invalid.GetFlag().Value.Type()); rule != "" {
			err = fmt.Errorf("--%s is %q: %s", invalid.GetFlag().Name, invalid.GetValue(), rule)
		}
	}
	return usage(fmt.Errorf("%w (see `%s --help`)", err, cmd.CommandPath()))
}

// helpCommand is cobra's help, but for one thing: a command that there is not is
// wrong usage.
func helpCommand(root *cobra.Command) *cobra.Command {
	return &cobra.Command{
		Use:   "help [COMMAND]",
		Short: "Explain a command",
		RunE: func(_ *cobra.Command, args []string) error {
			cmd, rest, err := root.Find(args)
			if err != nil || cmd == nil || len(rest) > 0 {
				return usage(fmt.Errorf("there is no command %q (`starling help` lists them)", strings.Join(args, " ")))
			}
			cmd.InitDefaultHelpFlag()
			return cmd.Help()
		},
	}
}

// positive is the rule of a wait.
func positive(flag string, value interface{ Seconds() float64 }) error {
	if value.Seconds() <= 0 {
		return usage(fmt.Errorf("--%s is %v: must be positive", flag, value))
	}
	return nil
}
