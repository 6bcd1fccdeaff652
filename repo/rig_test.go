package repo_test
