-- forgets sessions that nobody renewed in time
delete from sessions
 where expires_at < now()
