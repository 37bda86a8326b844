-- Creates the temporary table that holds the rows of an import until all of them are validated; dropped at commit.
-- A row that is not new changes the product of its id, and null leaves a column unchanged. A new product without an id
-- gets a generated one. A category that does not exist yet is staged by its name.
create temporary table staged (
    position     bigint generated always as identity,
    id           bigint,
    is_new       boolean not null,
    category_id  bigint,
    new_category text,
    name         text,
    description  text,
    price        text,
    created_at   timestamptz,
    tags         text[]
) on commit drop
