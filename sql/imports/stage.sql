-- Creates the temporary table that holds the rows of an import until all of them are validated; dropped at commit.
-- A row with an id changes that product, and null leaves a column unchanged; a row without an id is a new product.
create temporary table staged (
    position    bigint generated always as identity,
    id          bigint,
    category_id bigint,
    name        text,
    description text,
    price       text,
    created_at  timestamptz,
    tags        text[]
) on commit drop
