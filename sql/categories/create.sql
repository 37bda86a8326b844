-- Creates a category. $1 name
insert into categories (name)
values ($1)
returning id, name
