//go:build !unix

package app

// raiseDescriptors returns a number that such systems allow; they have no limit
// to ask for.
func raiseDescriptors() (int, error) { return 16384, nil }

// keepFilesPrivate does nothing: such systems have no mode of new files to set.
func keepFilesPrivate() {}
