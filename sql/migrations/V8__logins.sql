-- Logins that reveal nothing, known addresses that outlive a restart, and revocations that outlive every token. This
-- migration only adds objects, so the program before it works with this schema.

-- Returns the number of PBKDF2 iterations of a stored password, or null for one that no password matches: another
-- format, or more than 10 million iterations (MAX_ITERATIONS of the server). Bulk changes of accounts evaluate it per
-- row, and a regular expression with these counts costs more than the rest of the change. Every name is qualified,
-- because a restore builds the index below with an empty search path.
create function password_iterations(stored text) returns integer
    language sql immutable strict parallel safe
as $$
    select case
        when pg_catalog.starts_with(stored, 'pbkdf2_sha256$')
             and pg_catalog.length(pg_catalog.split_part(stored, '$', 2)) between 1 and 8
             and pg_catalog.translate(pg_catalog.split_part(stored, '$', 2), '0123456789', '') = ''
             and pg_catalog.split_part(stored, '$', 3) <> ''
             and pg_catalog.length(pg_catalog.split_part(stored, '$', 4)) = 44
        then case
            when pg_catalog.split_part(stored, '$', 2)::pg_catalog.int4 between 1 and 10000000
            then pg_catalog.split_part(stored, '$', 2)::pg_catalog.int4
        end
    end
$$;
create index users_password_iterations_idx on users (password_iterations(password::text));

-- Returns the largest number of iterations of all stored passwords, 0 without any: the cost of every login. The serving
-- role cannot read the passwords. PL/pgSQL keeps the plan, which reads one entry of the index.
create function max_password_iterations() returns integer
    language plpgsql stable security definer
    set search_path = public, pg_temp
as $$
begin
    return coalesce((select pg_catalog.max(password_iterations(password::text)) from users), 0);
end
$$;
revoke execute on function max_password_iterations() from public;

-- The addresses from which an account has logged in. They outlive sessions: guesses from elsewhere do not lock out the
-- owner at such an address. `digest` is the SHA-256 of a MAC of the address and of the user id: without the key of the
-- server it reveals neither the address nor which accounts share one.
create table trusted_addresses (
    user_id       bigint      not null references users (id) on delete cascade,
    digest        bytea       not null,
    last_login_at timestamptz not null default now(),
    primary key (user_id, digest)
);
create index trusted_addresses_last_login_at_idx on trusted_addresses (last_login_at);

-- A time at which every access token of the session has expired, also those issued under a longer ACCESS_TOKEN_TTL: a
-- revocation of the session lasts at least until then. Null: the session began before this column existed.
alter table sessions add column access_expires_at timestamptz;

insert into schema_compatibility (migration, oldest_schema, program) values (8, 5, '0.1.0');
