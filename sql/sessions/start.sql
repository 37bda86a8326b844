-- a login that can be renewed; $1 id, $2 user, $3 SHA-256 of the refresh token, $4 when it expires
insert into sessions (id, user_id, refresh_hash, expires_at)
values ($1, $2, $3, $4)
