create schema if not exists dbcl;
create extension if not exists postgres_fdw;
