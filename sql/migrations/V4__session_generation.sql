-- A session, like an access token, belongs to the generation of its user's tokens under which it was started: what ends
-- the tokens (another password, a deactivation, also by psql) ends the renewal of the login too.
alter table sessions add column generation integer;
update sessions s
   set generation = u.token_generation
  from users u
 where u.id = s.user_id;

-- servers of the version before still start sessions while they are replaced one by one, and know nothing of this
create function complete_session() returns trigger
    language plpgsql security definer
    set search_path = public, pg_temp
as $$
begin
    select token_generation into new.generation from users where id = new.user_id;
    return new;
end
$$;
create trigger complete_session before insert on sessions
    for each row when (new.generation is null) execute function complete_session();
