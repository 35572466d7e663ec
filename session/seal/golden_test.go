package seal_test

const (
	goldenMAC       = "30d634547beaeb455dcfdc717ff8a45975d2ed3494e076bfc3b73f6c5b85982e"
	goldenText      = "MTc5NTI5MDEyMnw4cmt6bHBMSGtWYXdKWmVjODIxLTVDMmZzWXZRdVhuWDNhajF8Q5wD87ZyW9amG2awLNXND2XRLGB7F7L3PWaGG4tuTuU"
	goldenBytes     = "AYGxa0Omme9rMqNaZmjPC3YreZbWxbev0K5IoFwcc1gm5w=="
	goldenEncrypted = "AS8Uv+HHGi1gw68uNIZTARYP6ZP5bcHtDE7xjMioHxHyxg=="
)
