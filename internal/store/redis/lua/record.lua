-- Get returns what is kept under ARGV[2]: version and expiry as doubles and the value,
-- or nothing.

return fetch(ARGV[2]) or ''
