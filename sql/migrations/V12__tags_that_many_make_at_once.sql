-- Whoever makes a tag that another has just made takes a lock on it by an update. An update of the name, which products refer to
-- by its row, is at odds with everybody who links that tag at the moment, and some then wait for each other in a circle; one
-- of this column is not. (It also tells how old a tag is.)
alter table tags add column created_at timestamptz not null default now();
