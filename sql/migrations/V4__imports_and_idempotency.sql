-- Ids are generated, but a program that copies a table or an operator with psql may insert explicit ones. The
-- sequence then advances past them: otherwise one insert would fail for every explicit id that the sequence reaches.

-- Advances the sequence in the trigger's first argument past the inserted ids.
create function advance_sequence() returns trigger
    language plpgsql security definer
    set search_path = public, pg_temp
as $$
declare
    sequence constant regclass := tg_argv[0]::regclass;
    highest  bigint;
begin
    -- Ids from 2^52 on are ignored: above them few ids would be left that a JSON number holds exactly (2^53).
    select max(id) into highest from inserted where id < 4503599627370496;
    if highest > coalesce(pg_sequence_last_value(sequence), 0) then
        -- without the lock, concurrent calls could set the sequence back
        perform pg_advisory_xact_lock(sequence::oid::bigint);
        perform setval(sequence, greatest(highest, coalesce(pg_sequence_last_value(sequence), 0)));
    end if;
    return null;
end
$$;

create trigger advance_sequence after insert on users
    referencing new table as inserted
    for each statement execute function advance_sequence('users_id_seq');
create trigger advance_sequence after insert on categories
    referencing new table as inserted
    for each statement execute function advance_sequence('categories_id_seq');
create trigger advance_sequence after insert on tags
    referencing new table as inserted
    for each statement execute function advance_sequence('tags_id_seq');
create trigger advance_sequence after insert on products
    referencing new table as inserted
    for each statement execute function advance_sequence('products_id_seq');

-- It runs with the owner's privileges; attached to another table it would let the serving role change sequences,
-- which it must not.
revoke execute on function advance_sequence() from public;

-- Responses to requests that a client may repeat (the header Idempotency-Key), written in the transaction of the
-- request itself: a response is stored if and only if its write was committed.
create table idempotency_keys (
    user_id      bigint       not null references users (id) on delete cascade,
    key          varchar(255) not null,
    -- SHA-256 of the body, its fields in order
    request_hash bytea        not null,
    response     text,
    created_at   timestamptz  not null default now(),
    primary key (user_id, key)
);
create index idempotency_keys_created_at_idx on idempotency_keys (created_at);
