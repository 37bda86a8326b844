-- A session, like an access token, belongs to the generation of its user's tokens under which it was started: what ends
-- the tokens (another password, a deactivation, also by psql) ends the renewal of the login too.
alter table sessions add column generation integer not null default 0;
update sessions s
   set generation = u.token_generation
  from users u
 where u.id = s.user_id;
