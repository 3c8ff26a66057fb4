package overload

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestAccountFindsWhatDoesNotAddUp(t *testing.T) {
	good := Account{Acknowledged: 100, Unconfirmed: 5, Copies: 3, Resent: 4, New: 102, Duplicates: 6}
	require.Empty(t, good.faults())
	for name, spoil := range map[string]func(*Account){
		"a lost fix":             func(a *Account) { a.New = 99 },
		"a fix from nowhere":     func(a *Account) { a.New = 106 },
		"a copy not noticed":     func(a *Account) { a.Duplicates = 2 },
		"a copy that none sent":  func(a *Account) { a.Duplicates = 8 },
		"a conflict out of none": func(a *Account) { a.Conflicts = 1 },
	} {
		bad := good
		spoil(&bad)
		require.Len(t, bad.faults(), 1, name)
	}
}
