mod accounts;
mod overload;
mod server;
