-- Creates a tag. $1 name
insert into tags (name)
values ($1)
returning id, name
