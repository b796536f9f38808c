module github.com/gostkit/kit/timerwheel

go 1.25.0
