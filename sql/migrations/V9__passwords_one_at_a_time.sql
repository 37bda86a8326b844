-- What the shop stores of passwords leaves the table through these functions alone, one account at a time: whoever gets to
-- run statements of their own as the role that serves cannot carry all of them away in one.

-- What a login needs to know.
create function credentials_of(
    name                 text,
    out id               bigint,
    out password         text,
    out is_active        boolean,
    out token_generation integer
) returns setof record
    language sql stable security definer
    set search_path = public, pg_temp
as $$
    select id, password, is_active, token_generation
      from users
     where lower(username) = lower(name)
$$;

-- Volatile on purpose: an update that waited for another one looks again, and must then see what that one wrote.
create function password_of(account bigint) returns text
    language sql volatile security definer
    set search_path = public, pg_temp
as $$
    select password
      from users
     where id = account
$$;

revoke execute on function credentials_of(text), password_of(bigint) from public;
