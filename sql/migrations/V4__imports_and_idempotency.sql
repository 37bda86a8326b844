-- Ids are generated, but a program that copies a table or an operator with psql may insert explicit ones. The
-- sequence then advances past them: otherwise one insert would fail for every explicit id that the sequence reaches.

-- `ids` is the sequence in the trigger's first argument.
create function draw_above() returns trigger
    language plpgsql security definer
    set search_path = public, pg_temp
as $$
declare
    ids    constant regclass := tg_argv[0]::regclass;
    chosen bigint;
begin
    -- far more than are ever drawn; above it hardly anything could be drawn that the numbers of JSON hold (2^53)
    select max(id) into chosen from added where id < 4503599627370496;
    if chosen > coalesce(pg_sequence_last_value(ids), 0) then
        -- two who choose at once would set it back
        perform pg_advisory_xact_lock(ids::oid::bigint);
        perform setval(ids, greatest(chosen, coalesce(pg_sequence_last_value(ids), 0)));
    end if;
    return null;
end
$$;

create trigger draw_above after insert on users
    referencing new table as added
    for each statement execute function draw_above('users_id_seq');
create trigger draw_above after insert on categories
    referencing new table as added
    for each statement execute function draw_above('categories_id_seq');
create trigger draw_above after insert on tags
    referencing new table as added
    for each statement execute function draw_above('tags_id_seq');
create trigger draw_above after insert on products
    referencing new table as added
    for each statement execute function draw_above('products_id_seq');

-- It runs with the owner's privileges; attached to another table it would let the serving role change sequences,
-- which it must not.
revoke execute on function draw_above() from public;

-- Responses to requests that a client may repeat (the header Idempotency-Key), written in the transaction of the
-- request itself: a response is stored if and only if its write was committed.
create table idempotency_keys (
    user_id      bigint       not null references users (id) on delete cascade,
    key          varchar(255) not null,
    -- SHA-256 of the body, its fields in order
    request_hash bytea        not null,
    answer       text,
    created_at   timestamptz  not null default now(),
    primary key (user_id, key)
);
create index idempotency_keys_created_at_idx on idempotency_keys (created_at);
