-- where the rows of an import gather until all of them are known to be good; goes with its transaction.
-- A row with an id tells what is to change of that product, null standing for what is not; one without is a new product
create temporary table staged (
    place       bigint generated always as identity,
    id          bigint,
    category_id bigint,
    name        text,
    description text,
    price       text,
    created_at  timestamptz,
    tags        text[]
) on commit drop
