-- Expand, then contract: the schema of a release serves the program of the release before it, so that a deploy can
-- migrate while the older servers run, and can be rolled back without touching the schema. Every migration from this
-- one on records the oldest program that works with the schema which it leaves behind.
--
-- Programs are compared by their newest migration. A program that does not know a migration works beside and after it
-- when its own newest migration is at least `oldest_schema`; otherwise it refuses the schema.
create table schema_compatibility (
    migration     integer primary key,
    -- the newest migration of the oldest program that works with this schema
    oldest_schema integer not null check (oldest_schema <= migration),
    -- the release that contains the migration, for messages
    program       text    not null
);

-- programs before this migration refuse every schema that is newer than theirs
insert into schema_compatibility (migration, oldest_schema, program) values (5, 5, '0.1.0');
