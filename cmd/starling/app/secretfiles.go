package app

import "os"

// othersMayRead are the permissions by which anybody but a file's owner reads it.
const othersMayRead = 0o044

// secretFiles are the files with secrets that are set, by their settings.
func (c *Config) secretFiles() map[string]string {
	files := map[string]string{
		"auth.page_key_file": c.Auth.PageKeyFile, "auth.dev_secret_file": c.Auth.DevSecretFile, "auth.service_token_file": c.Auth.ServiceTokenFile,
		"tls.key_file": c.TLS.KeyFile, "rides.name_keys_file": c.Rides.NameKeysFile,
		"kafka.sasl_password_file": c.Kafka.SASLPasswordFile, "kafka.tls_key_file": c.Kafka.TLSKeyFile,
		"history.clickhouse.password_file": c.History.ClickHouse.PasswordFile, "history.clickhouse.tls_key_file": c.History.ClickHouse.TLSKeyFile,
	}
	for setting, path := range files {
		if path == "" {
			delete(files, setting)
		}
	}
	return files
}

// warnOfOpenSecrets logs which files with secrets others than their owner can read.
// It is not a refusal: orchestrators mount secrets readable by a group, and who could
// read them has done so by the time of a refusal.
func (a *App) warnOfOpenSecrets() {
	for setting, path := range a.cfg.secretFiles() {
		info, err := os.Stat(path)
		if err != nil || info.Mode().Perm()&othersMayRead == 0 {
			continue // whoever needs the file reports that it is not there
		}
		a.logger.Warn("a file with a secret can be read by others than its owner: chmod 600, and replace the secret if strangers have accounts here",
			"setting", setting, "file", path, "mode", info.Mode().Perm().String())
	}
}
