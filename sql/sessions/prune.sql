-- Deletes expired sessions. One whose access tokens have not expired is kept: a logout needs their expiry.
delete from sessions
 where expires_at < now()
   and coalesce(access_expires_at, expires_at) < now()
